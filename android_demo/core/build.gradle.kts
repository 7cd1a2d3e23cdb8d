import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

java {
    sourceCompatibility = JavaVersion.VERSION_17
    targetCompatibility = JavaVersion.VERSION_17
}

// Warnings are errors in Maven's build, with one known compiler; a newer one may warn of something.
kotlin {
    explicitApi()
    compilerOptions { jvmTarget = JvmTarget.JVM_17 }
}

dependencies {
    api(libs.serialization.json) // the manifest has JSON objects in it
    testImplementation(libs.json.schema.validator)
    testImplementation(libs.junit)
    testImplementation(libs.kotlin.test)
    testRuntimeOnly(libs.junit.launcher)
}

tasks.test {
    useJUnitPlatform()
    maxHeapSize = "256m" // about a phone's: tests of large pictures fail where the code takes more
    systemProperty("xformer.golden", rootProject.file("../tests/golden").path)
    systemProperty("xformer.schemas", rootProject.file("../xformer_mobile/schemas").path)
}
